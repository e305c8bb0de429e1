"""Ultra on several machines: models in processes of their own, and replicas of the service."""
