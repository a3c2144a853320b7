"""What runs a stage: items, records and tables (`stage`), worker processes (`workers`), one machine or several."""
