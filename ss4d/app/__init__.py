"""The web app: a visitor's video becomes a clip that plays in the page. Started by `app.py`."""
