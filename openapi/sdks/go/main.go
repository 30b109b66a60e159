// openapi-generator's `go`: the standard library alone.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"reflect"

	valet "example.com/valet"
)

func check(holds bool, what ...any) {
	if !holds {
		log.Panicln(what...)
	}
}

func random() string {
	text := make([]byte, 16)
	rand.Read(text)
	return hex.EncodeToString(text)
}

// A picture that was never uploaded before: bytes after the end of an image are accepted.
func newPicture() ([]byte, *valet.NewUpload) {
	content, err := os.ReadFile(os.Getenv("VALET_PICTURE"))
	check(err == nil, err)
	content = append(content, random()...)
	digest := sha256.Sum256(content)
	return content, valet.NewNewUpload("beach.png", valet.PNG, int64(len(content)), base64.StdEncoding.EncodeToString(digest[:]))
}

// Sends the bytes with the method and the headers of the ticket, and no others.
func put(ticket *valet.UploadTicket, content []byte) int {
	check(ticket.Upload != nil, ticket)
	request, err := http.NewRequest(ticket.Upload.Method, ticket.Upload.Url, bytes.NewReader(content))
	check(err == nil, err)
	for name, value := range ticket.Upload.Headers {
		request.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(request)
	check(err == nil, err)
	answer.Body.Close()
	return answer.StatusCode
}

// Returns the status and code of a refused call.
func problem(err error) valet.Problem {
	var refused *valet.GenericOpenAPIError
	check(errors.As(err, &refused), "no problem", err)
	problem, known := refused.Model().(valet.Problem)
	check(known, err)
	return problem
}

func must[T any](value T, _ *http.Response, err error) T {
	check(err == nil, err)
	return value
}

func main() {
	settings := valet.NewConfiguration()
	settings.Servers = valet.ServerConfigurations{{URL: os.Getenv("VALET_URL")}}
	client := valet.NewAPIClient(settings)
	anonymous := context.Background()

	// Accounts.
	credentials := valet.NewSignInCredentials(random()+"@example.com", "four words "+random())
	must(client.AccountsAPI.SignUp(anonymous).SignInCredentials(*credentials).Execute())
	session := must(client.AccountsAPI.LogIn(anonymous).SignInCredentials(*credentials).Execute())
	refreshed := must(client.AccountsAPI.RefreshSession(anonymous).RefreshToken(*valet.NewRefreshToken(session.RefreshToken)).Execute())
	check(refreshed.RefreshToken != session.RefreshToken, "refresh")
	ada := context.WithValue(anonymous, valet.ContextAccessToken, refreshed.Token)

	// From a file to an image.
	var newestFirst []string
	var content []byte
	for n := 0; n < 2; n++ {
		var upload *valet.NewUpload
		content, upload = newPicture()
		upload.SetCaption("The sea")
		ticket := must(client.UploadsAPI.CreateUpload(ada).NewUpload(*upload).IdempotencyKey(random()).Execute())
		check(ticket.State == "pending", ticket)
		check(put(ticket, content) == 200 && put(ticket, content) == 412, "PUT, twice")
		image := must(client.UploadsAPI.ConfirmUpload(ada, ticket.Id).Execute())
		newestFirst = append([]string{image.Id}, newestFirst...)
	}

	// The gallery, by pages.
	var seen []string
	for request := client.GalleryAPI.ListImages(ada).Limit(1); ; {
		page := must(request.Execute())
		for _, image := range page.Images {
			seen = append(seen, image.Id)
		}
		if page.NextCursor == nil {
			break
		}
		request = request.Cursor(*page.NextCursor)
	}
	check(reflect.DeepEqual(seen, newestFirst), seen)

	// Many at once.
	var pictures [][]byte
	var items []valet.BatchUpload
	for n := 0; n < 2; n++ {
		content, upload := newPicture()
		pictures = append(pictures, content)
		items = append(items, *valet.NewBatchUpload(upload.FileName, upload.ContentType, upload.Size, upload.Sha256))
	}
	opened := must(client.BatchesAPI.CreateUploads(ada).UploadBatch(*valet.NewUploadBatch(items)).Execute())
	var ids []string
	for n, result := range opened.Results {
		check(result.Status == 201 && put(result.Ticket, pictures[n]) == 200, result)
		ids = append(ids, result.Ticket.Id)
	}
	for n, result := range must(client.BatchesAPI.ConfirmUploads(ada).ImageIds(*valet.NewImageIds(ids)).Execute()).Results {
		check(result.Image != nil && result.Image.Id == ids[n], result)
	}
	for _, result := range must(client.BatchesAPI.DeleteImages(ada).ImageIds(*valet.NewImageIds(ids)).Execute()).Results {
		check(result.Status == 204, result)
	}

	// One image.
	newest := newestFirst[0]
	image := must(client.GalleryAPI.GetImage(ada, newest).Execute())
	answer, err := http.Get(image.Url)
	check(err == nil, err)
	served, err := io.ReadAll(answer.Body)
	check(err == nil && bytes.Equal(served, content), "the bytes", err)
	image = must(client.GalleryAPI.UpdateImage(ada, newest).ImageUpdate(*valet.NewImageUpdate("The harbour")).Execute())
	check(image.GetCaption() == "The harbour", image)
	check(must(client.AccountsAPI.GetMe(ada).Execute()).Usage.Images == 2, "usage")
	_, err = client.GalleryAPI.DeleteImage(ada, newest).Execute()
	check(err == nil, err)

	// Problems.
	_, _, err = client.GalleryAPI.GetImage(ada, newest).Execute()
	check(problem(err).Code == "not_found", err)
	_, _, err = client.AccountsAPI.LogIn(anonymous).SignInCredentials(*valet.NewSignInCredentials(credentials.Email, "not the password")).Execute()
	check(problem(err).Code == "invalid_credentials", err)
	_, large := newPicture()
	large.Size = 1 << 50
	_, _, err = client.UploadsAPI.CreateUpload(ada).NewUpload(*large).Execute()
	refused := problem(err)
	check(refused.Code == "file_too_large" && refused.Errors[0].Field == "size", refused)

	_, err = client.AccountsAPI.LogOut(anonymous).RefreshToken(*valet.NewRefreshToken(refreshed.RefreshToken)).Execute()
	check(err == nil, err)
	_, _, err = client.AccountsAPI.GetMe(ada).Execute()
	check(problem(err).Code == "session_ended", err)
}
