"""Plan and apply over all layers: the only place that knows them all."""
