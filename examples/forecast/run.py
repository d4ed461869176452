"""Sunspots a year ahead, and decades ahead on its own predictions: a small LSTM beside autoregression.

    python examples/forecast/run.py [--quick]          # half a minute; needs fastrnn[examples]

Data: yearly sunspot numbers 1700 to 2008 (NOAA's tables, public domain, as statsmodels ships them). Trained on 1700 to 1920; nothing of the years
after is seen before it has been predicted. Prints mean squared errors relative to the variance of the whole series, and writes forecast.svg.
"""
'''
'''
