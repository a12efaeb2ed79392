"""Events out: endpoints, signatures, deliveries that arrive in order per call and are tried until they do."""
