"""How *The Literate Transformer* is made: export, run, site, study, check."""
