"""How well a model's answers and heat maps agree with a data set: measures, their uncertainty, and
a report that stands by itself."""
