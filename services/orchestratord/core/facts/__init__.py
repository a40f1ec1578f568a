"""What is: values and tables that the state holds. They know nothing of events, effects or one another's handlers."""
