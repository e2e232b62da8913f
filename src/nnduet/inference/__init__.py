"""From an image to a mask and answers: preprocessing, sliding window, the predictor, whole folders."""
