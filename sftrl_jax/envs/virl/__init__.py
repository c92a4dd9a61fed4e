"""V-IRL: follow a route through a city; the action space, or the city, is the shift."""
