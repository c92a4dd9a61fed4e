"""The chapter of a report on where curves go, where methods pass one another, and how good such forecasts were."""
