"""`dcsup render`: scripts, settings and the integrator's page."""
