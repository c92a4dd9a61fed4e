"""The pages of a report as blocks of Markdown and HTML."""
