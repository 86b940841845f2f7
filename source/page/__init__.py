"""The page of `debug.py serve`: what debug.py shows, in a browser. Server-rendered; nothing of it comes from elsewhere.

`app.page` makes the application; each other module brings the `routes` of its part.
"""
