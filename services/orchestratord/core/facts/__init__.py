"""Values and tables that the state holds. They depend on no events, effects or handlers."""
