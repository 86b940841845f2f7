"""How the models that this project trained itself were made."""
