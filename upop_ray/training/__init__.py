"""Search, retraining and one point from start to end; knows neither ray nor deepspeed."""
