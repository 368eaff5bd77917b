"""The private contract between server and agent."""
