"""Development scripts of this repository; nothing here is shipped."""
