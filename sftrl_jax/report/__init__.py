"""Reads workdirs and writes reports: tables, figures, pages. Imports no room of the house."""
