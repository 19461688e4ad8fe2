"""Stream configuration: which streams there are, and the settings of each."""
