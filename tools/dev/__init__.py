"""The development environment: set-up, a private engine, and what the Makefile calls.

Runs on the system's Python 3.11 or newer with the standard library alone, since it is what makes
the environment that everything else needs.
"""
