"""Creates the bucket and its CORS rules. LocalStack runs this file as an init hook once it is ready, with and without Docker."""

import os

import boto3

BUCKET = "valet"
PORT = os.environ.get("GATEWAY_LISTEN", ":4566").split(",")[0].rpartition(":")[2]

s3 = boto3.client(
    "s3",
    endpoint_url=f"http://127.0.0.1:{PORT}",
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
)
s3.create_bucket(Bucket=BUCKET)
s3.put_bucket_cors(
    Bucket=BUCKET,
    CORSConfiguration={
        "CORSRules": [
            {
                # Every origin is safe: a presigned URL is the only credential, and this bucket is for development.
                "AllowedOrigins": ["*"],
                # As in deploy/aws/cors.json: development is not more permissive than production.
                "AllowedMethods": ["GET", "PUT", "POST", "HEAD", "DELETE"],
                "AllowedHeaders": [
                    "content-type",
                    "if-none-match",
                    "x-amz-checksum-sha256",
                    "content-md5",
                    "content-disposition",
                    "range",
                ],
                "ExposeHeaders": [
                    "ETag",
                    "Location",
                    "x-amz-checksum-sha256",
                    "x-amz-checksum-crc64nvme",
                    "x-amz-request-id",
                    "x-amz-version-id",
                ],
                "MaxAgeSeconds": 3000,
            }
        ]
    },
)
