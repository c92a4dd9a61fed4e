"""A picture of a generated city and a route through it."""

from __future__ import annotations

from pathlib import Path

from sftrl_jax.envs.virl.city import City
from sftrl_jax.envs.virl.route import Route


def draw(city: City, route: Route, path: Path) -> Path:
  """Writes a .png: streets in grey, landmarks by name, the route's rail, and the action of each turn and of the end."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  figure = Figure(figsize=(8, 8), layout="constrained")
  FigureCanvasAgg(figure)
  axis = figure.subplots()
  for node, ways in city.streets.items():
    for following in ways.values():
      axis.plot(*zip(city.place(node), city.place(following), strict=True), color="0.85", linewidth=4, zorder=1,
                solid_capstyle="round")
  for node, (name, _, _) in city.landmarks.items():
    x, y = city.place(node)
    axis.plot(x, y, marker="s", markersize=4, color="0.6", zorder=2)
    axis.annotate(name, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=5, color="0.35")
  places = [point.place for point in route.points]
  axis.plot(*zip(*places, strict=True), color="#2a78d6", linewidth=2, marker="o", markersize=5, zorder=3)
  for number, point in enumerate(route.points, 1):
    if point.move == "forward":
      continue
    text = f"{number} stop" if point.move == "stop" else f"{number} turn {point.absolute} ({point.relative})"
    axis.annotate(text, point.place, xytext=(6, -8), textcoords="offset points", fontsize=7, color="#184f95", zorder=4)
  axis.set_aspect("equal")
  axis.set_axis_off()
  axis.set_title(f"{route.name}: {len(route.turns)} legs, {len(route.points)} points", fontsize=10)
  figure.savefig(path, dpi=130, facecolor="white")
  return path
