"""Record -> document: validation, text, payload, hashes."""

from vecsync_dagster.documents.builder import (
    Document,
    DocumentBatch,
    DocumentBuilder,
    Rejection,
    document_id,
    is_document_id,
)

__all__ = ["Document", "DocumentBatch", "DocumentBuilder", "Rejection", "document_id", "is_document_id"]
