"""Blender as a server of jobs.

`process` is the client, for the toolkit's own environment. All other modules run inside Blender's Python
(`.venv-blender`, made by `./setup.sh blender`), import nothing of the toolkit's environment beside numpy and pass
results as JSON and .npy files.
"""
