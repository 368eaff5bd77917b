"""The development environment: setup, a private engine, and the commands of the Makefile.

It runs on the system's Python 3.11 or later and needs only the standard library, because it creates the environment
with all other packages.
"""
