"""What each verb does with its arguments, and the pages it prints."""
