"""Anytime-valid inference: intervals that may be looked at after every request, and stopped at whenever one likes.

An ordinary 95 % interval that is looked at again and again misses the truth sooner or later; a 95 % confidence
sequence contains it at all times together with probability 95 %. Being valid at every look costs width: 1.8 times
that of an interval planned for one look, so about three times the units when nothing is there to be found; a gross
difference is found much earlier than planned.

| of what | class | assumes |
|---|---|---|
| a rate | `rates.Rate` | the rate given the past |
| a difference of rates, arms drawn at random | `rates.RateDifference` | the draw alone: units may be autocorrelated |
| a difference of rates on the same items | `rates.PairedRateDifference` | items independent |
| a mean within known limits | `bounded.BoundedMean`, `bounded.EmpiricalBernstein` | the mean given the past |
| a mean, of differences of logs for instance | `means.Mean` | units independent, about normal |
| a difference of means, arms drawn at random | `means.DrawnDifference` | the draw alone, about: drift, any shares |
| a difference of means, one share throughout | `means.MeanDifference` | units independent, or arms drawn at random |
| a quantile; the ratio of two arms' | `quantiles.Quantile`, `quantiles.QuantileRatio` | units independent |

Each has `interval(alpha)`, and `state()` with `restored(state)`: plain JSON, so that whoever watches may be killed
at any moment. `budget.split` divides one α over everything that is watched at once.
"""
