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
                # A presigned URL is the only credential, and this bucket is for development.
                "AllowedOrigins": ["*"],
                "AllowedMethods": ["GET", "HEAD", "PUT", "POST", "DELETE"],
                # Listed one by one: LocalStack compares `x-amz-*` literally.
                "AllowedHeaders": [
                    "content-type",
                    "content-md5",
                    "if-none-match",
                    "range",
                    "x-amz-checksum-algorithm",
                    "x-amz-checksum-crc32",
                    "x-amz-checksum-crc32c",
                    "x-amz-checksum-crc64nvme",
                    "x-amz-checksum-sha1",
                    "x-amz-checksum-sha256",
                    "x-amz-content-sha256",
                    "x-amz-date",
                    "x-amz-sdk-checksum-algorithm",
                    "x-amz-security-token",
                    "x-requested-with",
                ],
                "ExposeHeaders": [
                    "ETag",
                    "x-amz-checksum-crc32",
                    "x-amz-checksum-crc32c",
                    "x-amz-checksum-crc64nvme",
                    "x-amz-checksum-sha1",
                    "x-amz-checksum-sha256",
                    "x-amz-checksum-type",
                    "x-amz-request-id",
                ],
                "MaxAgeSeconds": 7200,
            }
        ]
    },
)
