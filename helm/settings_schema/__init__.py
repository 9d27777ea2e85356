"""What the chart's schema says of `config` and of variables, made of the programs' own settings.

In: the models that the programs check their settings with. Out: `definitions` of helm/flagpost/values.schema.json;
`make chart-schema` writes them anew. The rest of that file is written by hand.
"""
