"""The side of the bridge that runs inside of the checkout's interpreter.

Nothing but the standard library and what the checkout brings is imported here, and nothing newer than Python 3.10 is
written: the interpreter is the checkout's own.
"""
