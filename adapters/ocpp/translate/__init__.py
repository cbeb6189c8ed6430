"""Pure functions between OCPP's words and the domain's. No I/O, no state, no clock."""
