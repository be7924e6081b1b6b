"""Guideline statements as data: one YAML file per statement, in folders by category."""
