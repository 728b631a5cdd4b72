"""The questions that this project was begun with, each as a command that writes its own table."""
