"""The built-in data set: openly licensed emoji renderings joined with the CLDR labels and keywords."""
