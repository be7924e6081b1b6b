"""Templates as data: one Jinja file per template, in folders by family, vocabularies beside them."""
