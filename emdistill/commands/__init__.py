"""A verb per file. Its function is a line of COMMANDS (cli.py), and the function's signature is its command line:

a parameter is an option, with the words of the docstring's `Args:`; a positional-only one stands without an option; a
single parameter of a configuration class stands for that class's fields.
"""
