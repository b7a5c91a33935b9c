"""Clients that work and clients that attack: a seed gives a plan, a run of it, and a verdict."""
