"""The other side of `./run bench accept`: FastAPI, PyJWT and Celery, as one would write it in an afternoon."""
