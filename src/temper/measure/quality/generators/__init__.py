"""Questions with known answers, made from random numbers: no data set to download, and none to have been trained on."""
