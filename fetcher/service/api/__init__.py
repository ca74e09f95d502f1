"""The service over HTTP: who may ask, what can be asked, and what is answered."""
