"""The whole OpenAPI document against a real instance, by Schemathesis: `make fuzz`."""
