"""Take a result to other programs: `python -m ss4d.export RESULT --to FORMAT` (docs/exports.md)."""
