"""What a caller may post to the inbox's HTTP endpoint, read strictly: an event, a file, or an object store's notice."""

from typing import Annotated, Any
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ml_assets.errors import InboxError
from ml_assets.interfaces import PipelinePath

MOST_RECORDS = 1000
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+/[A-Za-z0-9_]+$", max_length=200)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    pipeline: Name

    @property
    def path(self) -> PipelinePath:
        """Return (team, pipeline)."""
        team, _, name = self.pipeline.partition("/")
        return team, name


class PostedEvent(_Body):
    """Something happened that concerns one partition."""

    partition: Text
    key: Text
    payload: dict[str, Any] = Field(default_factory=dict)


class PostedPlace(_Body):
    """A file of a pipeline arrived."""

    place: Text


class Notice(BaseModel):
    """Files that an object store says were written, of whatever pipeline."""

    model_config = ConfigDict(frozen=True)

    places: tuple[str, ...]


Posted = PostedEvent | PostedPlace | Notice


def read_body(body: Any) -> Posted:
    """Return what was posted.

    Raises:
        InboxError: If it is neither an event, nor a file, nor a notice, with every field that is wrong.
    """
    if not isinstance(body, dict):
        raise InboxError(f"The body is a JSON {type(body).__name__}; expected an object.")
    if "Records" in body:
        return _notice(body["Records"])
    kind = PostedPlace if "place" in body else PostedEvent
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        listed = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InboxError(
            f"The body is no event: {listed}. Expected {{pipeline, partition, key, payload?}} or {{pipeline, place}}."
        ) from error


def _notice(records: Any) -> Notice:
    """Read the notice that S3 and MinIO send; what was removed is nothing that arrived."""
    if not isinstance(records, list) or len(records) > MOST_RECORDS:
        raise InboxError(f"Records: expected a list of at most {MOST_RECORDS} notices of an object store.")
    places = []
    for number, record in enumerate(records):
        try:
            bucket, key = record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]
            written = "ObjectCreated" in record["eventName"]
        except (KeyError, TypeError) as error:
            raise InboxError(
                f"Records.{number} is no notice of an object store: expected eventName, s3.bucket.name and "
                "s3.object.key."
            ) from error
        if not isinstance(bucket, str) or not isinstance(key, str):
            raise InboxError(f"Records.{number}: s3.bucket.name and s3.object.key must be text.")
        if written:
            places.append(f"s3://{bucket}/{unquote_plus(key)}")
    return Notice(places=tuple(places))
