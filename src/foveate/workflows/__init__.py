"""The jobs themselves, as the command line and the Python API call them; `foveate` names what is public."""
