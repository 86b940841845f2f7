"""Control pictures: read as arrays, drawn by models, and the letters that ask for them."""
