"""The page about the API that people read, made from its OpenAPI document. It works offline and has no script."""
