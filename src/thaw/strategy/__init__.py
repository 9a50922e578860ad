"""Phases + stages -> plan. Plain data and pure functions; knows no Lightning and no torch."""
