"""The only place that imports ray or deepspeed: engine, replica, trial, sweep controller."""
