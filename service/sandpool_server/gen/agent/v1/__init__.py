"""The messages and services of the private contract between server and agent."""
