"""See a result: one HTML file that plays it, without a server and without the network."""
